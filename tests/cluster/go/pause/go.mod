module orlop/pause

go 1.26
