//go:build !unix || aix || solaris

package term

import "os"

// size knows no terminals here, so output is plain.
func size(*os.File) (width int, ok bool) { return 0, false }
