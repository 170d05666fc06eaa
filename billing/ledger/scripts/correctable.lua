-- Whether a month's bill takes a correction. ARGV[3]: month, '' for the current one, [4]: ms after its end in
-- which a period may still begin, [5]: ms in which a request that is given up may arrive.
-- Answers {why not, '' when it does, the month, the one in which usage is counted now}.
local period = ARGV[3] ~= '' and ARGV[3] or month_of(now)
return { uncorrectable(period, ARGV[4], ARGV[5]) or '', period, current_period() }
