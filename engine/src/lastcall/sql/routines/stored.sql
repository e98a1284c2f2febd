create or replace function lastcall.stored(issuer text, subject text, function text, key text) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select i.answer from lastcall.idempotency i
    where i.issuer = stored.issuer and i.subject = stored.subject and i.function = stored.function and i.key = stored.key
$$;
comment on function lastcall.stored(text, text, text, text) is 'The answer that an earlier call with this key got.';
grant execute on function lastcall.stored(text, text, text, text) to lastcall_authenticator;
