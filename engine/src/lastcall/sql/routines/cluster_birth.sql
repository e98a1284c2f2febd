-- The inode of PG_VERSION is never touched once initdb has made it, and is another one in a copy.
create or replace function lastcall.cluster_birth() returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return extract(epoch from (pg_stat_file('PG_VERSION')).change)::text;
exception when insufficient_privilege or undefined_file then
    return null;
end
$$;
comment on function lastcall.cluster_birth() is
    'When the files of this data folder were made: later than the cluster where they are a restored copy. NULL: not to be known.';
grant execute on function lastcall.cluster_birth() to lastcall_replication;
