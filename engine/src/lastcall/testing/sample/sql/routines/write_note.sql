create or replace function sample_api.write_note(topic text, writer integer, number integer, body text default '') returns bigint
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into sample.note (topic, writer, number, body)
    values (write_note.topic, write_note.writer, write_note.number, write_note.body)
    returning id
$$;
comment on function sample_api.write_note(text, integer, integer, text) is 'Write a note on a topic and return its id.';
grant execute on function sample_api.write_note(text, integer, integer, text) to member, service;
