-- Fills in what a call leaves unsaid (faction and war follow from the caller) and refuses what cannot be a call:
-- so a plain INSERT by any client obeys the same rules as torncat_api.call_target.
create or replace function torncat.complete_call() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    war torncat.wars;
begin
    if new.faction_id is null then
        select u.faction_id into new.faction_id from torncat.users u where u.id = new.caller_id;
    end if;
    if new.war_id is null then
        select w.id into new.war_id from torncat.wars w
        where new.faction_id in (w.faction_one_id, w.faction_two_id) and w.ended_at is null;
    end if;
    select w.* into war from torncat.wars w where w.id = new.war_id for key share;
    if war.id is null or new.faction_id not in (war.faction_one_id, war.faction_two_id) then
        raise exception using errcode = 'TC002', message = 'this war is not one of the caller''s faction';
    end if;
    if war.ended_at is not null then
        raise exception using errcode = 'TC004', message = 'this war has ended';
    end if;
    if not exists (select from torncat.users u where u.id = new.caller_id and u.faction_id = new.faction_id) then
        raise exception using errcode = 'TC002', message = 'the caller is not a member of this faction';
    end if;
    if not exists (
        select from torncat.users u
        where u.id = new.target_id and u.faction_id in (war.faction_one_id, war.faction_two_id)
            and u.faction_id <> new.faction_id
    ) then
        raise exception using errcode = 'TC003', message = 'the target is not on the enemy''s roster';
    end if;
    return new;
end
$$;
