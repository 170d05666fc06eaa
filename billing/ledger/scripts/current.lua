-- Answer the period in which usage of now is counted, and its snapshot.
local period = current_period()
return { period, snapshot(period) }
