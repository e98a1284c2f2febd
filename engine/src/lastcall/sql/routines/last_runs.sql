-- after: now
create or replace function lastcall.last_runs(jobs text[]) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_object('now', extract(epoch from lastcall.now()), 'last', coalesce((
        select jsonb_object_agg(j.job, extract(epoch from r.due_at))
        from unnest(last_runs.jobs) as j (job)
        cross join lateral (
            select max(o.due_at) as due_at from lastcall.job_run o where o.job = j.job and o.due_at <= lastcall.now()
        ) r
        where r.due_at is not null
    ), '{}'))
$$;
comment on function lastcall.last_runs(text[]) is
    'The clock of business rules, and the last due time of each job that was taken, in seconds since 1970.';
grant execute on function lastcall.last_runs(text[]) to lastcall_authenticator;
