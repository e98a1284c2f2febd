create or replace function sample_api.echo(value jsonb) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
as $$ select echo.value $$;
comment on function sample_api.echo(jsonb) is 'Return the argument.';
grant execute on function sample_api.echo(jsonb) to anon, member, service;
