package testenv_test

import (
	"strings"
	"testing"

	"github.com/lovage-go/lovage/internal/testenv"
)

func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	s := testenv.RabbitMQ(t)
	one, two := s.Vhost(t), s.Vhost(t)
	if one == two {
		t.Errorf("two virtual hosts have the URL %s", one)
	}
	if out := s.Control(t, "list_vhosts"); !strings.Contains(out, "v1") || !strings.Contains(out, "v2") {
		t.Errorf("rabbitmqctl lists %q", out)
	}
}
