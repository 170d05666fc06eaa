-- The period in which usage of this moment is counted.
return current_period()
