-- after: complete_call
create or replace trigger target_calls_complete
    before insert on torncat.target_calls
    for each row execute function torncat.complete_call();
