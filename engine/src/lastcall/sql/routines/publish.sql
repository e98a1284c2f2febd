-- after: emit, check_channel
create or replace function lastcall.publish(channel text, event text, data jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform lastcall.check_channel(publish.channel);
    if publish.event is null or publish.event !~ '^[a-z][a-z0-9_]{0,62}$' or publish.event in (
        'joined', 'heartbeat', 'reset', 'state', 'gone', 'revoked', 'close', 'ack', 'error', 'open', 'message')
    then
        raise exception 'that is not an event''s name, or it is reserved' using errcode = 'LC410';
    end if;
    if publish.data is null or octet_length(publish.data::text) > 65536 then
        raise exception 'an event needs JSON data of at most 65536 bytes' using errcode = 'LC410';
    end if;
    perform lastcall.emit('lastcall.event', jsonb_build_object(
        'channel', publish.channel, 'event', publish.event, 'data', publish.data));
end
$$;
comment on function lastcall.publish(text, text, jsonb) is
    'An event without a table: heard on the channel when this transaction commits, at its place in it.';
grant execute on function lastcall.publish(text, text, jsonb) to service;
