create or replace function lastcall.begin_run(job text, due_at timestamptz, missed integer) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into lastcall.job_run (job, due_at, missed) values (begin_run.job, begin_run.due_at, begin_run.missed)
    on conflict do nothing;
    if not found then
        raise exception 'somebody has run this already' using errcode = 'LC001';
    end if;
end
$$;
comment on function lastcall.begin_run(text, timestamptz, integer) is
    'The fence of jobs: pass, or LC001 where this due time of the job was taken before.';
grant execute on function lastcall.begin_run(text, timestamptz, integer) to lastcall_authenticator;
