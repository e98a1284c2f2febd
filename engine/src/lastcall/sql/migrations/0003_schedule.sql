-- What ran when. The primary key is the fence: whoever inserts (job, due_at) runs it, nobody else ever does.

create table lastcall.job_run (
    job text not null check (length(job) between 1 and 100),
    due_at timestamptz not null,
    started_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    outcome text not null default 'running' check (outcome in ('running', 'done', 'failed', 'quiet', 'new', 'lost')),
    missed integer not null default 0 check (missed >= 0),
    note text not null default '' check (length(note) <= 500),
    primary key (job, due_at),
    check ((outcome = 'running') = (finished_at is null))
);
alter table lastcall.job_run enable row level security;
create index job_run_by_age on lastcall.job_run using brin (started_at);
create index job_run_running on lastcall.job_run (job) where outcome = 'running';
comment on table lastcall.job_run is 'Every due time of a job or timer that came: who ran it is fenced by (job, due_at).';
comment on column lastcall.job_run.due_at is 'By lastcall.now(), the clock of business rules.';
comment on column lastcall.job_run.started_at is 'By the wall clock, as finished_at.';
comment on column lastcall.job_run.missed is 'Due times before this one that nobody ran (downtime, a moved clock); they are not made up for.';
comment on column lastcall.job_run.outcome is 'quiet: it fell into quiet hours; new: the job was seen for the first time; lost: the leader that ran it is gone.';
