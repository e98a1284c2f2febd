-- after: claims
create or replace function lastcall.claim(name text) returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select lastcall.claims() ->> claim.name
$$;
comment on function lastcall.claim(text) is 'One claim of the token as text; NULL when it has no such claim.';
grant execute on function lastcall.claim(text) to anon, member, service;
