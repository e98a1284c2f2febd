-- after: messages_trusted
create or replace function lastcall.feed_source(slot text) returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object(
        'database', current_database(),
        'recovery', pg_is_in_recovery(),
        'wal_level', current_setting('wal_level'),
        'slot_wal_keep_mb', (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size'),
        'flush_lsn', case when not pg_is_in_recovery() then pg_current_wal_flush_lsn() end,
        'messages_trusted', lastcall.messages_trusted(),
        'slot', (
            select to_jsonb(s) || jsonb_build_object(
                'holder', (select a.application_name from pg_stat_activity a where a.pid = s.active_pid))
            from pg_replication_slots s where s.slot_name = feed_source.slot))
$$;
comment on function lastcall.feed_source(text) is 'What the feed must know of the server and of its slot before it starts.';
grant execute on function lastcall.feed_source(text) to lastcall_replication;
