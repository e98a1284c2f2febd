-- Called with the role of the call, so it trusts nothing: the row is the one that this very transaction has entered.
create or replace function lastcall.keep(answer text, answer_max_bytes integer) returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if octet_length(keep.answer) > keep.answer_max_bytes then
        raise exception 'the answer is too large to be kept' using errcode = 'LC003',
            detail = jsonb_build_object('bytes', octet_length(keep.answer), 'bytes_max', keep.answer_max_bytes)::text;
    end if;
    update lastcall.idempotency i set answer = keep.answer
    where i.ctid = nullif(current_setting('lastcall.entered', true), '')::tid
        and i.xid = pg_current_xact_id() and i.answer is null and keep.answer is not null;
    if not found then
        raise exception 'this transaction has entered nothing that is to be kept' using errcode = 'LC100';
    end if;
    return keep.answer;
end
$$;
comment on function lastcall.keep(text, integer) is
    'Keep the answer of the call that this transaction has entered, and return it; LC003 when it is too large.';
grant execute on function lastcall.keep(text, integer) to anon, member, service;
