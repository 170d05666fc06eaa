-- Count a batch of one customer's usage, each id once, and mark what changed as due: one atomic step.
-- ARGV[3]: 12-byte digests of the ids, [4]: 4-byte hashes of the contents, both packed; [5] msgpack
-- {hi, lo, at_ms, series}: a column each, series as index into [6] msgpack rows {period, sku, price,
-- currency, app, region, organization}; [7], [8]: accepted age and lead in ms; [9]: ms until due.
-- Answers one letter a delta, and the period each series was counted in.
local DIMENSIONS = { 'app', 'region', 'organization' }
-- An id is remembered in the generation in which it was received and for all of the next one.
local WINDOW = 42 * 86400000
local PER_BUCKET = 40

local digests, contents, columns = ARGV[3], ARGV[4], cmsgpack.unpack(ARGV[5])
local his, los, ats, rows = columns[1], columns[2], columns[3], columns[4]
local series = cmsgpack.unpack(ARGV[6])
local oldest_accepted, newest_accepted = now - ARGV[7], now + ARGV[8]
local count = #his

local currency, remembered = unpack(redis.call('HMGET', CUSTOMER, 'currency', 'ids'))
if not currency then
    return { string.rep('u', count), {} }
end

-- The ids are a linear hash table: *buckets* grows one at a time, splitting the next bucket in line.
local generation, buckets, ids, old_buckets = string.match(remembered or '0 0 0 0', '(%d+) (%d+) (%d+) (%d+)')
generation, buckets, ids = tonumber(generation), tonumber(buckets), tonumber(ids)
old_buckets = tonumber(old_buckets)
local current = math.floor(now / WINDOW)
if current > generation then
    old_buckets = current == generation + 1 and buckets or 0
    generation, buckets, ids = current, 0, 0
end

local function doubling(n)
    local size = 1
    while size * 2 <= n do
        size = size * 2
    end
    return size
end

local function bucket_of(first, n, size)
    local bucket = first % (2 * size)
    return bucket < n and bucket or first % size
end

local function digest(i)
    return string.sub(digests, 12 * i - 11, 12 * i)
end

local function number_of(text, at)
    local a, b, c, d = string.byte(text, at, at + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
end

local function bucket_key(of, bucket)
    return CUSTOMER .. ':ids:' .. of .. ':' .. bucket
end

local function grouped(n, wanted)
    local size, groups = doubling(n), {}
    for i = 1, count do
        if not wanted or wanted[i] then
            local bucket = bucket_of(number_of(digests, 12 * i - 11), n, size)
            local group = groups[bucket]
            if group then
                group[#group + 1] = i
            else
                groups[bucket] = { i }
            end
        end
    end
    return groups
end

local known = {}
local function recall(of, n)
    if n == 0 then
        return
    end
    for bucket, group in pairs(grouped(n)) do
        local asked = {}
        for k, i in ipairs(group) do
            asked[k] = digest(i)
        end
        local found = redis.call('HMGET', bucket_key(of, bucket), unpack(asked))
        for k, i in ipairs(group) do
            known[i] = found[k] or known[i]
        end
    end
end
recall(generation, buckets)
recall(generation - 1, old_buckets)

-- Where each series is counted, with what stands there; a sum is {hi, lo, changed}.
local targets = {}
local function target_of(period)
    local landed = landing(period)
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
    row.target, row.sums, row.line = target, sums, line
    -- Late usage is billed at the price of its own period.
    if line ~= row[2] then
        local origin = redis.call('HGET', part(row[1], 'totals'), row[2])
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
        local found = redis.call('HMGET', key, unpack(fields, from, upto))
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

-- Adds to the line and to its dimensions, all or none of them.
local function counted(sums, hi, lo)
    local next_hi, next_lo = {}, {}
    for k = 1, #sums do
        local sum = sums[k]
        next_hi[k], next_lo[k] = plus(sum[1], sum[2], hi, lo)
        if not in_range(next_hi[k], next_lo[k]) then
            return false
        end
    end
    for k = 1, #sums do
        local sum = sums[k]
        sum[1], sum[2], sum[3] = next_hi[k], next_lo[k], true
    end
    return true
end

local letters, new, added, here = {}, {}, 0, {}
local function outcome(i)
    local id, content = digest(i), string.sub(contents, 4 * i - 3, 4 * i)
    local before = known[i] or here[id]
    if before then
        return before == content and 'd' or 'c'
    elseif ats[i] < oldest_accepted then
        return 'o'
    elseif ats[i] > newest_accepted then
        return 'f'
    end
    local row = series[rows[i]]
    if row[4] ~= currency then
        return 'w'
    elseif not counted(row.sums, his[i], los[i]) then
        return 'r'
    end
    row.target.deltas = row.target.deltas + 1
    here[id], new[i], added = content, content, added + 1
    return 'a'
end
for i = 1, count do
    letters[i] = outcome(i)
end
if added == 0 then
    return { table.concat(letters), landed }
end

-- From here on only writes.
local function split()
    local size = doubling(buckets)
    local from, to = bucket_key(generation, buckets - size), bucket_key(generation, buckets)
    local flat, stay, move = redis.call('HGETALL', from), 0, {}
    for k = 1, #flat, 2 do
        if number_of(flat[k], 1) % (2 * size) == buckets then
            move[#move + 1], move[#move + 2] = flat[k], flat[k + 1]
        else
            stay = stay + 1
        end
    end
    buckets = buckets + 1
    if #move == 0 then
        return
    end
    redis.call('HSET', to, unpack(move))
    redis.call('PEXPIRE', to, (generation + 2) * WINDOW - now)
    local leave = {}
    for k = 1, #move, 2 do
        leave[#leave + 1] = move[k]
    end
    redis.call('HDEL', from, unpack(leave))
end

ids = ids + added
buckets = math.max(buckets, 1)
while ids > PER_BUCKET * buckets do
    split()
end
for bucket, group in pairs(grouped(buckets, new)) do
    local key, pairs_of = bucket_key(generation, bucket), {}
    for _, i in ipairs(group) do
        pairs_of[#pairs_of + 1], pairs_of[#pairs_of + 2] = digest(i), new[i]
    end
    redis.call('HSET', key, unpack(pairs_of))
    redis.call('PEXPIRE', key, (generation + 2) * WINDOW - now, 'NX')
end
redis.call('HSET', CUSTOMER, 'ids', string.format('%.0f %.0f %.0f %.0f', generation, buckets, ids, old_buckets))

local function store(key, sums, text_of)
    local flat = {}
    for field, sum in pairs(sums) do
        if sum[3] then
            flat[#flat + 1], flat[#flat + 2] = field, text_of(sum)
        end
        if #flat >= 2000 then
            redis.call('HSET', key, unpack(flat))
            flat = {}
        end
    end
    if #flat > 0 then
        redis.call('HSET', key, unpack(flat))
    end
end

for period, target in pairs(targets) do
    if target.deltas > 0 then
        local header = header_of(period) or begun(period)
        store(part(period, 'totals'), target.lines, function(sum)
            return sum.price .. ' ' .. written(sum[1], sum[2])
        end)
        for _, dimension in ipairs(DIMENSIONS) do
            store(part(period, dimension), target[dimension], function(sum)
                return written(sum[1], sum[2])
            end)
        end
        redis.call('HSET', part(period), 'version', raised(header.version),
            'pending', (header.pending or 0) + target.deltas,
            'oldest_ms', header.oldest_ms or now, 'newer_ms', header.newer_ms or now)
        due_within(period, ARGV[9])
    end
end
return { table.concat(letters), landed }
