-- Check if a month's bill accepts an adjustment. ARGV[3]: month, '' for the current one, [4]: ms after its
-- end in which a period may still begin, [5]: ms in which an abandoned request may still arrive.
-- Answers {reason of a refusal or '', the month, the current period}.
local period = ARGV[3] ~= '' and ARGV[3] or month_of(now)
return { uncorrectable(period, ARGV[4], ARGV[5]) or '', period, current_period() }
