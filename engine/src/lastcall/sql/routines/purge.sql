create or replace function lastcall.purge(answers_days integer, records_days integer, rows_max integer) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    gone bigint;
    total bigint := 0;
begin
    delete from lastcall.idempotency i where i.ctid = any (array(
        select o.ctid from lastcall.idempotency o
        where o.created_at < clock_timestamp() - make_interval(days => purge.answers_days) limit purge.rows_max));
    get diagnostics gone = row_count;
    total := total + gone;
    delete from lastcall.job_run r where r.ctid = any (array(
        select o.ctid from lastcall.job_run o
        where o.started_at < clock_timestamp() - make_interval(days => purge.records_days) and o.outcome <> 'running'
        limit purge.rows_max));
    get diagnostics gone = row_count;
    total := total + gone;
    delete from lastcall.usage u where u.ctid = any (array(
        select o.ctid from lastcall.usage o
        where o.day < (clock_timestamp() at time zone 'UTC')::date - purge.records_days limit purge.rows_max));
    get diagnostics gone = row_count;
    return total + gone;
end
$$;
comment on function lastcall.purge(integer, integer, integer) is
    'Forget old stored answers, job runs and usage, at most rows_max of each; how many were forgotten.';
grant execute on function lastcall.purge(integer, integer, integer) to lastcall_authenticator;
