-- after: cluster_birth
create or replace function lastcall.current_epoch(slot text) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select to_jsonb(e) || jsonb_build_object(
        'publication', w.publication::bigint, 'birth', w.birth, 'birth_now', lastcall.cluster_birth())
    from lastcall.epoch e left join lastcall.watched w on w.slot = e.slot where e.slot = current_epoch.slot order by e.began_at desc limit 1
$$;
comment on function lastcall.current_epoch(text) is 'The life of the stream that this slot carries; NULL when it has none yet.';
grant execute on function lastcall.current_epoch(text) to lastcall_replication;
