create or replace function lastcall.note_consistent_point(epoch text, consistent_point pg_lsn) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
    update lastcall.epoch e set consistent_point = note_consistent_point.consistent_point
    where e.epoch = note_consistent_point.epoch
$$;
comment on function lastcall.note_consistent_point(text, pg_lsn) is 'Where the slot of this epoch begins.';
grant execute on function lastcall.note_consistent_point(text, pg_lsn) to lastcall_replication;
