module letshare

go 1.25.0
