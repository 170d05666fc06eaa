-- Answer the period in which usage of now is counted.
return current_period()
