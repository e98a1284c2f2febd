-- The distance is kept in seconds alone: an interval with days would change its length with a time zone's summer time.
create or replace function lastcall.set_now(moment timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if set_now.moment is null then
        delete from lastcall.clock;
        return;
    end if;
    if not isfinite(set_now.moment) then
        raise exception 'the clock cannot be set to %', set_now.moment using errcode = 'LC108';
    end if;
    insert into lastcall.clock (ahead)
    values (make_interval(secs => extract(epoch from set_now.moment - clock_timestamp())::double precision))
    on conflict (only_row) do update set ahead = excluded.ahead;
end
$$;
comment on function lastcall.set_now(timestamptz) is
    'Set the clock of business rules; time goes on from there. NULL: back to the wall clock. For the owner only.';
