create or replace function sample_api.change_note(id bigint, topic text default null, body text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update sample.note n
    set topic = coalesce(change_note.topic, n.topic), body = coalesce(change_note.body, n.body)
    where n.id = change_note.id;
    return found;
end
$$;
comment on function sample_api.change_note(bigint, text, text) is 'Change a note''s body, or move it to another topic.';
grant execute on function sample_api.change_note(bigint, text, text) to member, service;
