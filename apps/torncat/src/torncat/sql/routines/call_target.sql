create or replace function torncat_api.call_target(war_id bigint, target_id bigint) returns jsonb
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    call torncat.target_calls;
    holder torncat.target_calls;
    caller bigint := lastcall.claim('sub')::bigint;
    faction bigint := lastcall.claim('faction_id')::bigint;
begin
    -- The holder may release between the refused insert and the look at who holds: then try again, three times at most.
    for attempt in 1..3 loop
        insert into torncat.target_calls (faction_id, war_id, caller_id, target_id)
        values (faction, call_target.war_id, caller, call_target.target_id)
        on conflict do nothing
        returning * into call;
        if found then
            return jsonb_build_object('id', call.id, 'caller_id', call.caller_id, 'target_id', call.target_id,
                'created_at', call.created_at);
        end if;
        select c.* into holder from torncat.target_calls c
        where c.faction_id = faction and c.war_id = call_target.war_id and c.target_id = call_target.target_id
            and c.status = 'open';
        if found then
            raise exception using errcode = 'TC001', message = 'somebody already holds this target',
                detail = jsonb_build_object('caller_id', holder.caller_id, 'call_id', holder.id,
                    'created_at', holder.created_at)::text;
        end if;
    end loop;
    raise exception using errcode = '40001', message = 'the target changed hands three times';
end
$$;
comment on function torncat_api.call_target(bigint, bigint) is
    'Call a target of a running war for the token''s member. Exactly one caller wins; the others get TC001 with the holder.';
grant execute on function torncat_api.call_target(bigint, bigint) to member;
