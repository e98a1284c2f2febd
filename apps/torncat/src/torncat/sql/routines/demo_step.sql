create or replace function torncat_api.demo_step() returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    done text;
begin
    -- A hit takes ten to thirty seconds; whoever has played longest goes first. A visitor's own calls are left alone for two minutes.
    update torncat.target_calls c
    set status = 'released', released_at = lastcall.now(), reason = 'hit'
    where c.id = (
        select o.id from torncat.target_calls o
        where o.status = 'open' and o.war_id = 1
            and o.created_at < lastcall.now() - case when o.caller_id = 1001 then interval '2 minutes'
                else interval '10 seconds' + random() * interval '20 seconds' end
        order by o.created_at limit 1 for update skip locked)
    returning 'released' into done;
    if done is not null then
        return done;
    end if;
    insert into torncat.target_calls (caller_id, target_id)
    select caller.id, target.id
    from (select u.id from torncat.users u where u.faction_id = 101 and u.id <> 1001
            and (select count(*) from torncat.target_calls c where c.caller_id = u.id and c.status = 'open') < 2
            order by random() limit 1) caller,
        (select u.id from torncat.users u where u.faction_id = 202
            and not exists (select from torncat.target_calls c where c.target_id = u.id and c.status = 'open')
            order by random() limit 1) target
    on conflict do nothing
    returning 'called' into done;
    return coalesce(done, 'rested');
end
$$;
comment on function torncat_api.demo_step() is 'One move of the demonstration''s war: a call, a hit, or a rest.';
grant execute on function torncat_api.demo_step() to service;
