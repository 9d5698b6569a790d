/* Keeps objects where no object does: in a variable, and in a block of malloc's. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

PyObject *kept_here[4];
PyObject **block_kept; /* seen from outside, or the compiler sees that nobody reads it and keeps nothing */

static PyObject *in_variable(PyObject *self, PyObject *object)
{
    Py_INCREF(object);
    kept_here[2] = object;
    Py_RETURN_NONE;
}

static PyObject *in_block(PyObject *self, PyObject *object)
{
    block_kept = malloc(1000);
    Py_INCREF(object);
    block_kept[5] = object;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"in_variable", in_variable, METH_O, NULL},
    {"in_block", in_block, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "keeps", NULL, -1, methods};

PyMODINIT_FUNC PyInit_keeps(void)
{
    return PyModule_Create(&definition);
}
