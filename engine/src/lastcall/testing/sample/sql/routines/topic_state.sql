create or replace function sample_api.topic_state(id text) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object('notes', coalesce(jsonb_agg(to_jsonb(n) order by n.id), '[]'))
    from sample.note n where n.topic = topic_state.id
$$;
comment on function sample_api.topic_state(text) is 'All notes of a topic.';
grant execute on function sample_api.topic_state(text) to member, service;
