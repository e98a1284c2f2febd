create or replace function lastcall.current_epoch(slot text) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select to_jsonb(e) || jsonb_build_object('publication', (
        select w.publication::bigint from lastcall.watched w where w.slot = e.slot))
    from lastcall.epoch e where e.slot = current_epoch.slot order by e.began_at desc limit 1
$$;
comment on function lastcall.current_epoch(text) is 'The life of the stream that this slot carries; NULL when it has none yet.';
grant execute on function lastcall.current_epoch(text) to lastcall_replication;
