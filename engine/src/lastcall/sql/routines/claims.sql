create or replace function lastcall.claims() returns jsonb
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(nullif(current_setting('lastcall.claims', true), ''), '{}')::jsonb
$$;
comment on function lastcall.claims() is 'The claims of the token that this call came with; {} without one.';
grant execute on function lastcall.claims() to anon, member, service;
