create or replace function sample_api.write_draft(topic text, writer integer, number integer, body text) returns bigint
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into sample.draft (topic, writer, number, body)
    values (write_draft.topic, write_draft.writer, write_draft.number, write_draft.body)
    returning id
$$;
comment on function sample_api.write_draft(text, integer, integer, text) is 'Write what nobody hears, and return its id.';
grant execute on function sample_api.write_draft(text, integer, integer, text) to member, service;
