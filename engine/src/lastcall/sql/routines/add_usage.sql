create or replace function lastcall.add_usage(counts jsonb) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into lastcall.usage as u (day, subject, kind, count)
    select c.day, c.subject, c.kind, c.count
    from jsonb_to_recordset(add_usage.counts) as c (day date, subject text, kind text, count bigint)
    -- One order for all nodes, so that two of them never wait for each other in a circle.
    order by c.day, c.subject, c.kind
    on conflict (day, subject, kind) do update set count = u.count + excluded.count
$$;
comment on function lastcall.add_usage(jsonb) is 'Add what a node has counted: [{"day", "subject", "kind", "count"}, …], no pair twice.';
grant execute on function lastcall.add_usage(jsonb) to lastcall_authenticator;
