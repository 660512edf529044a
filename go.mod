module github.com/lovage-go/lovage

go 1.26

require (
	github.com/BurntSushi/toml v1.6.0
	github.com/goccy/go-yaml v1.19.2
)
