module github.com/lovage-go/lovage

go 1.26
