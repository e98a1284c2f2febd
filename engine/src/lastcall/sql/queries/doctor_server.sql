-- What the doctor must know of the server; one JSON object.
select jsonb_build_object(
    'version', current_setting('server_version'),
    'version_num', current_setting('server_version_num')::integer,
    'encoding', current_setting('server_encoding'),
    'recovery', pg_is_in_recovery(),
    'read_only', current_setting('transaction_read_only')::boolean,
    'clock', extract(epoch from clock_timestamp()),
    'settings', (
        select jsonb_object_agg(name, setting) from pg_settings
        where name in (
            'wal_level', 'max_replication_slots', 'max_wal_senders', 'max_slot_wal_keep_size', 'max_connections',
            'superuser_reserved_connections', 'fsync', 'full_page_writes', 'password_encryption')),
    'owner', (
        select jsonb_build_object('name', rolname, 'superuser', rolsuper) from pg_roles where rolname = current_user),
    'slots_used', (select count(*) from pg_replication_slots),
    'senders_used', (select count(*) from pg_stat_replication),
    'migrated', to_regclass('lastcall.migration') is not null,
    'slot', (
        select to_jsonb(s) || jsonb_build_object(
            'retained', case
                when not pg_is_in_recovery() then pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)
            end,
            'here', s.database = current_database())
        from pg_replication_slots s where s.slot_name = %(slot)s)
)
