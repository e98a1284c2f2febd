-- after: messages_trusted
create or replace function lastcall.emit(prefix text, content jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    row_id bigint;
begin
    if lastcall.messages_trusted() then
        perform pg_logical_emit_message(true, emit.prefix, emit.content::text);
    else
        insert into lastcall.published (prefix, content) values (emit.prefix, emit.content) returning id into row_id;
        delete from lastcall.published where id = row_id;
    end if;
end
$$;
comment on function lastcall.emit(text, jsonb) is 'Put something into the stream at this place of the transaction. For the engine only.';
