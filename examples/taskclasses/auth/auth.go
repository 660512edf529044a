package main

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/lovage-go/lovage"
)

// Users is what the tasks of a process know. Celery's worker runs one task at a
// time in each process; here runs share the process, so what they change has a
// lock.
type Users struct {
	mu        sync.RWMutex
	passwords map[string]string
}

// Add makes a user known, or changes the password.
func (u *Users) Add(name, password string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.passwords == nil {
		u.passwords = map[string]string{}
	}
	u.passwords[name] = password
}

// Check reports whether the user is known and the password right.
func (u *Users) Check(name, password string) bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	want, known := u.passwords[name]
	return known && password == want
}

// Credentials are the arguments of both tasks: def run(self, user, password).
type Credentials struct{ User, Password string }

// Login is the authenticator.
type Login struct {
	lovage.Task
	users  *Users
	setups atomic.Int64
}

// Init sets the users up: Celery's __init__, but only in processes that run
// tasks, and once there, before the first run.
func (t *Login) Init(ctx context.Context) error {
	t.setups.Add(1)
	t.users.Add("george", "secret")
	return nil
}

// Run is the body of the task.
func (t *Login) Run(ctx context.Context, in Credentials) (bool, error) {
	return t.users.Check(in.User, in.Password), nil
}

// AddUser is a second task on the same users: both have the pointer.
type AddUser struct {
	lovage.Task
	users *Users
}

// Run is the body of the task, which has no result.
func (t *AddUser) Run(ctx context.Context, in Credentials) error {
	t.users.Add(in.User, in.Password)
	return nil
}

// Auth is an app with its tasks.
type Auth struct {
	*lovage.App
	Login   *lovage.Class[*Login, Credentials, bool]
	AddUser *lovage.Class[*AddUser, Credentials, lovage.None]
}

// newAuth declares the tasks. Callers and workers declare the same; only in
// workers is Init run.
func newAuth(store string) *Auth {
	app := lovage.New("auth", lovage.Config{BrokerURL: store, ResultBackend: store})
	users := &Users{}
	return &Auth{
		App:     app,
		Login:   lovage.Register(app, "auth.login", &Login{users: users}, lovage.Queue("auth")),
		AddUser: lovage.RegisterProc(app, "auth.add_user", &AddUser{users: users}, lovage.Queue("auth")),
	}
}
