-- Keep events, each once. KEYS: counter of receipts, due.
-- ARGV: ms that a finished record is kept, prefixes of records, lists and waiting, then as JSON for each
--       event its id, status, subject, type, object, customer, invoice and period ('' for none).
-- Answers for each event 1 when it is new, 0 when it was here already.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local answers = {}

local function keep(id, status, subject, ...)
    local record = ARGV[2] .. id
    if redis.call('EXISTS', record) == 1 then
        return 0
    end
    local n = redis.call('INCR', KEYS[1])
    local type, object, customer, invoice, period = ...
    redis.call('HSET', record, 'n', n, 'status', status, 'received', ms, 'attempts', 0, 'type', type,
        'object_id', object, 'customer', customer, 'invoice', invoice, 'period', period)
    redis.call('ZADD', ARGV[3] .. status, n, id)
    if status == 'PENDING' then
        redis.call('SADD', ARGV[4] .. subject, id)
        redis.call('ZADD', KEYS[2], 'NX', ms, subject)
    else
        redis.call('PEXPIRE', record, ARGV[1])
    end
    return 1
end

for _, event in ipairs(cjson.decode(ARGV[5])) do
    answers[#answers + 1] = keep(unpack(event))
end
return answers
