create or replace function sample_api.delete_note(id bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from sample.note n where n.id = delete_note.id;
    return found;
end
$$;
comment on function sample_api.delete_note(bigint) is 'Delete a note; whether it was there.';
grant execute on function sample_api.delete_note(bigint) to member, service;
