-- The primary key is the gate. A twin that is still in flight is waited for (its transaction's lock, so lock_timeout
-- bounds it); where it rolls back, this call goes in.
create or replace function lastcall.enter(issuer text, subject text, function text, key text, hash bytea) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    place tid;
    known bytea;
begin
    -- A row that was there may be purged before it is read: then the key is free again.
    for attempt in 1..3 loop
        insert into lastcall.idempotency as i (issuer, subject, function, key, hash)
        values (enter.issuer, enter.subject, enter.function, enter.key, enter.hash)
        on conflict do nothing
        returning i.ctid into place;
        if found then
            perform set_config('lastcall.entered', place::text, true);
            return;
        end if;
        select i.hash into known from lastcall.idempotency i
        where i.issuer = enter.issuer and i.subject = enter.subject and i.function = enter.function and i.key = enter.key;
        if found and known = enter.hash then
            raise exception 'this call was applied before' using errcode = 'LC001';
        elsif found then
            raise exception 'this key was used with other arguments' using errcode = 'LC002';
        end if;
    end loop;
    raise exception 'the key changed hands three times' using errcode = '40001';
end
$$;
comment on function lastcall.enter(text, text, text, text, bytea) is
    'The gate of calls that apply once: pass, or LC001 (applied before), or LC002 (the key belongs to another request).';
grant execute on function lastcall.enter(text, text, text, text, bytea) to lastcall_authenticator;
