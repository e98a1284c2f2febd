create or replace function lastcall.lose_runs() returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    lost bigint;
begin
    update lastcall.job_run r set outcome = 'lost', finished_at = clock_timestamp() where r.outcome = 'running';
    get diagnostics lost = row_count;
    return lost;
end
$$;
comment on function lastcall.lose_runs() is 'A new leader says of unfinished runs that whoever ran them is gone; how many.';
grant execute on function lastcall.lose_runs() to lastcall_authenticator;
