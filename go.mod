module github.com/lovage-go/lovage

go 1.26

require github.com/google/uuid v1.6.0
