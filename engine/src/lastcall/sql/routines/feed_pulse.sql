create or replace function lastcall.feed_pulse(slot text) returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'snapshot', pg_current_snapshot(),
        'retained_bytes', (
            select pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)
            from pg_replication_slots s where s.slot_name = feed_pulse.slot))
$$;
comment on function lastcall.feed_pulse(text) is 'What is visible by now, and how much log the slot holds back.';
grant execute on function lastcall.feed_pulse(text) to lastcall_replication;
