create or replace function lastcall.now() returns timestamptz
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select now() + coalesce((select ahead from lastcall.clock), interval '0')
$$;
comment on function lastcall.now() is 'The one clock of business rules: the start of the transaction, as set_now moved it.';
grant execute on function lastcall.now() to anon, member, service;
