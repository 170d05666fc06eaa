-- Store events, each once. KEYS: counter of receipts, due.
-- ARGV: ms until a finished record expires, prefixes of records, lists and waiting, then as JSON for each
--       event its id, status, subject, type, object, customer, invoice and period ('' for none).
-- Returns for each event 1 if it is new, 0 if it was stored before.
-- All additions to a list are one command, because in a flood these occupy the ledger.
require_whole_slot(KEYS[1])
local ms = now_ms()
local events = cjson.decode(ARGV[5])
local answers, listed, due = {}, {}, {}
local n = redis.call('INCRBY', KEYS[1], #events) - #events

local function store(n, id, status, subject, type, object, customer, invoice, period)
    local record = ARGV[2] .. id
    if redis.call('EXISTS', record) == 1 then
        return 0
    end
    redis.call('HSET', record, 'n', n, 'status', status, 'received', ms, 'attempts', 0, 'type', type,
        'object_id', object, 'customer', customer, 'invoice', invoice, 'period', period)
    local list = listed[status] or {}
    listed[status] = list
    list[#list + 1] = n
    list[#list + 1] = id
    if status == 'PENDING' then
        redis.call('SADD', ARGV[4] .. subject, id)
        due[#due + 1] = ms
        due[#due + 1] = subject
    else
        redis.call('PEXPIRE', record, ARGV[1])
    end
    return 1
end

for i, event in ipairs(events) do
    answers[i] = store(n + i, unpack(event))
end
for status, list in pairs(listed) do
    redis.call('ZADD', ARGV[3] .. status, unpack(list))
end
if #due > 0 then
    redis.call('ZADD', KEYS[2], 'NX', unpack(due))
end
return answers
