create or replace function torncat_api.release_call(call_id bigint) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    call torncat.target_calls;
    caller bigint := lastcall.claim('sub')::bigint;
begin
    select c.* into call from torncat.target_calls c
    where c.id = release_call.call_id and c.faction_id = lastcall.claim('faction_id')::bigint
    for update;
    if not found then
        raise exception using errcode = 'TC006', message = 'there is no such call';
    elsif call.caller_id <> caller then
        raise exception using errcode = 'TC005', message = 'this call is somebody else''s',
            detail = jsonb_build_object('caller_id', call.caller_id)::text;
    elsif call.status <> 'open' then
        raise exception using errcode = 'TC006', message = 'this call was released before';
    end if;
    update torncat.target_calls c set status = 'released', released_at = lastcall.now(), reason = 'uncalled'
    where c.id = call.id returning c.* into call;
    return jsonb_build_object('id', call.id, 'released_at', call.released_at, 'reason', call.reason);
end
$$;
comment on function torncat_api.release_call(bigint) is 'Give a target back that the token''s member has called.';
grant execute on function torncat_api.release_call(bigint) to member;
