package demo

// What the tests look at from outside.
var (
	Count       = count
	Identifiers = identifiers
	Top         = top
	Merge       = merge
	List        = list
	Recount     = recount
	Compare     = compare
	ParseRoman  = parseRoman
	Number      = number[int]
	Rate        = rate
	Span        = span
	Size        = size
)

// Once is the check that each path has one result.
func Once(paths []string, counted []Counted) error {
	return (&job{paths: paths, counted: counted}).once()
}
