create or replace function lastcall.end_run(job text, due_at timestamptz, outcome text, note text) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
    update lastcall.job_run r
    set outcome = end_run.outcome, note = left(end_run.note, 500), finished_at = clock_timestamp()
    where r.job = end_run.job and r.due_at = end_run.due_at and r.outcome = 'running'
$$;
comment on function lastcall.end_run(text, timestamptz, text, text) is 'How a run that begin_run let pass has ended.';
grant execute on function lastcall.end_run(text, timestamptz, text, text) to lastcall_authenticator;
