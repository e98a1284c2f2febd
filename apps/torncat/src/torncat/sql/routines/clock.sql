create or replace function torncat_api.clock() returns bigint
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select (extract(epoch from clock_timestamp()) * 1000)::bigint
$$;
comment on function torncat_api.clock() is
    'The database''s clock in milliseconds since 1970, so that a page can tell how old an event is by the clock that stamped it.';
grant execute on function torncat_api.clock() to anon, member, service;
