create or replace function lastcall.messages_trusted() returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select coalesce((select messages from lastcall.path), false)
$$;
comment on function lastcall.messages_trusted() is
    'Whether the feed may believe a message whose prefix is ours: nobody but the owner''s functions can emit one.';
grant execute on function lastcall.messages_trusted() to lastcall_replication;
