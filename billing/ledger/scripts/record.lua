-- Record a batch of one customer's usage, each id once, and mark changed periods as due, in one step.
-- ARGV[3]: 12-byte digests of the ids, [4]: 4-byte hashes of the contents, both packed; [5] msgpack
-- {hi, lo, at_ms, series}: one column each, series an index into [6] msgpack rows {period, sku, price,
-- currency, app, region, organization}; [7], [8]: accepted age and lead in ms; [9]: ms until due;
-- [10]: ms after its end in which a period may still begin.
-- Answers one letter per delta, and the period each series was counted in.
local DIMENSIONS = { 'app', 'region', 'organization' }
-- An id is remembered in the generation in which it was received and for all of the next one.
local WINDOW = 42 * 86400000
local PER_BUCKET = 40

local call, sub, byte = redis.call, string.sub, string.byte
local digests, contents, columns = ARGV[3], ARGV[4], cmsgpack.unpack(ARGV[5])
local his, los, ats, rows = columns[1], columns[2], columns[3], columns[4]
local series = cmsgpack.unpack(ARGV[6])
local oldest_accepted, newest_accepted = now - ARGV[7], now + ARGV[8]
local count = #his

local currency, remembered, deleted = unpack(call('HMGET', CUSTOMER, 'currency', 'ids', 'deleted_ms'))
if not currency then
    return { string.rep('u', count), {} }
end

-- The ids are a linear hash table: *buckets* grows by one at a time, which splits the next bucket.
local shape = {}
for n in string.gmatch(remembered or '0 0 0 0', '%d+') do
    shape[#shape + 1] = tonumber(n)
end
local generation, buckets, ids, old_buckets = unpack(shape)
local before = ids
local current = math.floor(now / WINDOW)
if current > generation then
    old_buckets = current == generation + 1 and buckets or 0
    generation, buckets, ids, before = current, 1, 0, 0
end
local forgotten_in = (generation + 2) * WINDOW - now
local bucket_key = CUSTOMER .. ':ids:' .. generation .. ':'
local old_bucket_key = CUSTOMER .. ':ids:' .. generation - 1 .. ':'

local function doubling(n)
    local size = 1
    while size * 2 <= n do
        size = size * 2
    end
    return size
end

local size, old_size = doubling(buckets), doubling(old_buckets)

local function number_of(id)
    local a, b, c, d = byte(id, 1, 4)
    return ((a * 256 + b) * 256 + c) * 256 + d
end

local function bucket_of(number)
    local bucket = number % (2 * size)
    return bucket_key .. (bucket < buckets and bucket or number % size)
end

local function old_content(id, number)
    local bucket = number % (2 * old_size)
    return call('HGET', old_bucket_key .. (bucket < old_buckets and bucket or number % old_size), id)
end

local function split()
    local from, to = bucket_key .. buckets - size, bucket_key .. buckets
    local flat, move, leave = call('HGETALL', from), {}, {}
    for k = 1, #flat, 2 do
        if number_of(flat[k]) % (2 * size) == buckets then
            move[#move + 1], move[#move + 2], leave[#leave + 1] = flat[k], flat[k + 1], flat[k]
        end
    end
    buckets = buckets + 1
    if buckets == 2 * size then
        size = buckets
    end
    if #leave > 0 then
        call('HSET', to, unpack(move))
        call('PEXPIRE', to, forgotten_in)
        call('HDEL', from, unpack(leave))
    end
end

-- Remember a new id and return true; return the content of a known one.
local function remembered_as(id, number, content)
    local known = old_buckets > 0 and old_content(id, number)
    if known then
        return known
    end
    local bucket = bucket_of(number)
    if call('HSETNX', bucket, id, content) == 0 then
        return call('HGET', bucket, id)
    end
    ids = ids + 1
    if ids == 1 then
        call('PEXPIRE', bucket, forgotten_in)
    elseif ids > PER_BUCKET * buckets then
        split()
    end
    return true
end

-- The period in which each series is counted, with its sums; a sum is {hi, lo, changed}.
local targets, landings = {}, {}
local function target_of(period)
    local landed = landings[period] or landing(period, ARGV[10])
    landings[period] = landed
    local target = targets[landed]
    if not target then
        target = { period = landed, lines = {}, app = {}, region = {}, organization = {}, deltas = 0 }
        targets[landed] = target
    end
    return target
end

local function sum_in(sums, field)
    local sum = sums[field]
    if not sum then
        sum = { 0, 0, false }
        sums[field] = sum
    end
    return sum
end

local landed = {}
for s, row in ipairs(series) do
    local target = target_of(row[1])
    local line = target.period == row[1] and row[2] or row[2] .. '~' .. row[1]
    local sums = { sum_in(target.lines, line) }
    for d, dimension in ipairs(DIMENSIONS) do
        if row[4 + d] ~= '' then
            sums[#sums + 1] = sum_in(target[dimension], line .. '\0' .. row[4 + d])
        end
    end
    landed[s] = target.period
    row.target, row.sums, row.deltas, row.hi, row.lo = target, sums, 0, 0, 0
    -- Late usage is billed at the price of its own period.
    if line ~= row[2] then
        local origin = call('HGET', part(row[1], 'totals'), row[2])
        row[3] = origin and price_and_quantity(origin) or row[3]
    end
    sums[1].price = sums[1].price or row[3]
end

local function load(key, sums, understood)
    local fields = {}
    for field in pairs(sums) do
        fields[#fields + 1] = field
    end
    for from = 1, #fields, 1000 do
        local upto = math.min(from + 999, #fields)
        local found = call('HMGET', key, unpack(fields, from, upto))
        for k = from, upto do
            if found[k - from + 1] then
                understood(sums[fields[k]], found[k - from + 1])
            end
        end
    end
end

for period, target in pairs(targets) do
    load(part(period, 'totals'), target.lines, function(sum, text)
        local quantity
        sum.price, quantity = price_and_quantity(text)
        sum[1], sum[2] = parsed(quantity)
    end)
    for _, dimension in ipairs(DIMENSIONS) do
        load(part(period, dimension), target[dimension], function(sum, text)
            sum[1], sum[2] = parsed(text)
        end)
    end
end

-- A batch that cannot take any sum out of range is added up by series without further checks.
local largest, moved = 0, 0
for _, target in pairs(targets) do
    for _, sums in pairs({ target.lines, target.app, target.region, target.organization }) do
        for _, sum in pairs(sums) do
            largest = math.max(largest, math.abs(sum[1]))
        end
    end
end
for i = 1, count do
    moved = moved + math.abs(his[i]) + 1
end
local roomy = largest + moved + 1 < LIMIT

local function apply(row, hi, lo)
    for k = 1, #row.sums do
        local sum = row.sums[k]
        sum[1], sum[2] = plus(sum[1], sum[2], hi, lo)
    end
end

-- Add to the line and to its dimensions, to all or none.
local function counted(row, hi, lo)
    if roomy then
        row.hi, row.lo = row.hi + hi, row.lo + lo
        return true
    end
    for k = 1, #row.sums do
        if not in_range(plus(row.sums[k][1], row.sums[k][2], hi, lo)) then
            return false
        end
    end
    apply(row, hi, lo)
    return true
end

local function taken_back(row, hi, lo)
    if roomy then
        row.hi, row.lo = row.hi - hi, row.lo - lo
    else
        apply(row, minus(0, 0, hi, lo))
    end
end

-- An id is written as it is checked. Every rejection happens before that write, and nothing fails after it.
local function outcome(i)
    local id, content = sub(digests, 12 * i - 11, 12 * i), sub(contents, 4 * i - 3, 4 * i)
    local number, row = number_of(id), series[rows[i]]
    local refusal = deleted and 'g' or ats[i] < oldest_accepted and 'o' or ats[i] > newest_accepted and 'f'
        or row[4] ~= currency and 'w' or not counted(row, his[i], los[i]) and 'r'
    local known
    if refusal then
        known = old_buckets > 0 and old_content(id, number) or call('HGET', bucket_of(number), id)
        if not known then
            return refusal
        end
    else
        known = remembered_as(id, number, content)
        if known == true then
            row.deltas = row.deltas + 1
            return 'a'
        end
        taken_back(row, his[i], los[i])
    end
    return known == content and 'd' or 'c'
end

local letters, conflicts = {}, 0
for i = 1, count do
    letters[i] = outcome(i)
    conflicts = conflicts + (letters[i] == 'c' and 1 or 0)
end
if conflicts > 0 then
    call('HINCRBY', CUSTOMER, 'conflicts', conflicts)
end
if ids > before then
    call('HSET', CUSTOMER, 'ids', string.format('%.0f %.0f %.0f %.0f', generation, buckets, ids, old_buckets))
end

for _, row in ipairs(series) do
    if row.deltas > 0 then
        row.target.deltas = row.target.deltas + row.deltas
        apply(row, row.hi + math.floor(row.lo / UNIT), row.lo % UNIT)
        for k = 1, #row.sums do
            row.sums[k][3] = true
        end
    end
end

local function store(key, sums, text_of)
    local flat = {}
    for field, sum in pairs(sums) do
        if sum[3] then
            flat[#flat + 1], flat[#flat + 2] = field, text_of(sum)
        end
        if #flat >= 2000 then
            call('HSET', key, unpack(flat))
            flat = {}
        end
    end
    if #flat > 0 then
        call('HSET', key, unpack(flat))
    end
end

local function begun_or_found(period)
    local version, pending, oldest, newer = unpack(
        call('HMGET', part(period), 'version', 'pending', 'oldest_ms', 'newer_ms'))
    if not version then
        return begun(period)
    end
    return { version = version, pending = pending, oldest_ms = oldest, newer_ms = newer }
end

for period, target in pairs(targets) do
    if target.deltas > 0 then
        local header = begun_or_found(period)
        store(part(period, 'totals'), target.lines, function(sum)
            return sum.price .. ' ' .. written(sum[1], sum[2])
        end)
        for _, dimension in ipairs(DIMENSIONS) do
            store(part(period, dimension), target[dimension], function(sum)
                return written(sum[1], sum[2])
            end)
        end
        call('HSET', part(period), 'version', raised(header.version),
            'pending', (header.pending or 0) + target.deltas,
            'oldest_ms', header.oldest_ms or now, 'newer_ms', header.newer_ms or now)
        if not header.oldest_ms then
            call('ZADD', SHARD .. ':untold', now, member(period))
        end
        due_within(period, ARGV[9])
    end
end
return { table.concat(letters), landed }
